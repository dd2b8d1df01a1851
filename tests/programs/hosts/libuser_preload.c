// The user's own preload, which must stay in effect.
int getppid(void) { return 4242; }
