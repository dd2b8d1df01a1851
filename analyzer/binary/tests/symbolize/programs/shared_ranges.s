# 100,000 functions that all refer to one list of 50,000 ranges: a file of 1.3 MB with 5,000,000,000 ranges.
        .text
        .globl  shared
        .type   shared, @function
shared: ret
.Lend:
        .size   shared, .Lend - shared

        .section .debug_abbrev,"",@progbits
        .uleb128 1, 0x11                # compile unit, with children
        .byte   1
        .uleb128 0x11, 0x01             # low_pc: address
        .uleb128 0x12, 0x07             # high_pc: 8 bytes
        .uleb128 0, 0
        .uleb128 2, 0x2e                # subprogram, without children
        .byte   0
        .uleb128 0x55, 0x17             # ranges: offset
        .uleb128 0, 0
        .byte   0

        .section .debug_ranges,"",@progbits
        .rept   50000
        .quad   0, 1
        .endr
        .quad   0, 0

        .section .debug_info,"",@progbits
        .long   .Linfo_end - .Linfo
.Linfo: .short  4                       # DWARF 4
        .long   0
        .byte   8
        .uleb128 1
        .quad   shared, .Lend - shared
        .rept   100000
        .byte   2, 0, 0, 0, 0
        .endr
        .byte   0
.Linfo_end:
