# A function whose debug information nests a million inlined functions into one another, each in one byte.
        .text
        .globl  deep
        .type   deep, @function
deep:   ret
.Lend:
        .size   deep, .Lend - deep

        .section .debug_abbrev,"",@progbits
        .uleb128 1, 0x11                # compile unit, with children
        .byte   1
        .uleb128 0x11, 0x01             # low_pc: address
        .uleb128 0x12, 0x07             # high_pc: 8 bytes
        .uleb128 0, 0
        .uleb128 2, 0x2e                # subprogram, with children
        .byte   1
        .uleb128 0x03, 0x08             # name: string
        .uleb128 0x11, 0x01
        .uleb128 0x12, 0x07
        .uleb128 0, 0
        .uleb128 3, 0x1d                # inlined subroutine, with children, without attributes
        .byte   1
        .uleb128 0, 0
        .byte   0

        .section .debug_info,"",@progbits
        .long   .Linfo_end - .Linfo
.Linfo: .short  4                       # DWARF 4
        .long   0
        .byte   8
        .uleb128 1
        .quad   deep, .Lend - deep
        .uleb128 2
        .asciz  "deep_by_dwarf"
        .quad   deep, .Lend - deep
        .fill   1000000, 1, 3
.Linfo_end:
