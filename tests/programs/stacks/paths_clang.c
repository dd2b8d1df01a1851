//#Compiler: clang
//#Build: -fomit-frame-pointer -Wno-unused-command-line-argument -Wno-unknown-attributes
#include "paths.h"
