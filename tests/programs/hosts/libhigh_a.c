// A library that asks for a high address. libhigh_a.c and libhigh_b.c ask for the same one, so the loader
// puts one of them below its link-time address.
//#Build: -Wl,-Ttext-segment=0x7ffff0000000
int high_a(void) { return 7; }
