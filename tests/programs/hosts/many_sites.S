# 100,000 distinct call sites, each of which allocates and frees 16 bytes once.
#
# Sites that do not fit into the site table are counted together, and no allocation is lost.
        .text
        .globl  main
        .type   main, @function
main:
        subq    $8, %rsp
        .rept   100000
        movl    $16, %edi
        call    malloc@PLT
        movq    %rax, %rdi
        call    free@PLT
        .endr
        movl    $1, %edi
        leaq    message(%rip), %rsi
        movl    $3, %edx
        call    write@PLT
        xorl    %eax, %eax
        addq    $8, %rsp
        ret
        .size   main, .-main
        .section .rodata
message: .ascii "ok\n"
        .section .note.GNU-stack,"",@progbits
