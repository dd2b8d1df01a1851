// A preload of the user's own, which must stay in effect.
int getppid(void) { return 4242; }
