// Preloaded before edleak's library, as a script may do that knows nothing of it.
#include "checking_malloc.h"
