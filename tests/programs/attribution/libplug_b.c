#define CONFIG_BYTES 1900
#include "plugin.h"
