// A library that the user preloads. edleak must not disable this library.
int getppid(void) { return 4242; }
