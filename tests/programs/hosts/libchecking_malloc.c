// A library that is preloaded before edleak's library, as by a script that does not know edleak.
#include "checking_malloc.h"
