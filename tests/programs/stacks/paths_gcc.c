//#Build: -fomit-frame-pointer
#include "paths.h"
