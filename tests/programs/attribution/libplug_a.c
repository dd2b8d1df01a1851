#define CONFIG_BYTES 700
#include "plugin.h"
