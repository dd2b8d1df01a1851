// A script that does not know edleak preloads this library before edleak's library.
#include "checking_malloc.h"
