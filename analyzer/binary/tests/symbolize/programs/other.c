/* A second unit of debug information. One function has the same name as a function of the first unit. */
static inline int helper(int value) { return value ^ 0x55; }

int checksum(const unsigned char *bytes, unsigned length) {
    int sum = 0;
    for (unsigned i = 0; i < length; i++)
        sum += helper(bytes[i]);
    return sum;
}
