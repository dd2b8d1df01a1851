/* A second unit, with a function called as one in the first. */
static inline int helper(int value) { return value ^ 0x55; }

int checksum(const unsigned char *bytes, unsigned length) {
    int sum = 0;
    for (unsigned i = 0; i < length; i++)
        sum += helper(bytes[i]);
    return sum;
}
