/* The default image (BusyBox root with smol-init), as the build made it. */
    .section .rodata
    .balign 4096
    .global smol_default_image
    .global smol_default_image_end
smol_default_image:
    .incbin SMOL_IMAGE
smol_default_image_end:
    .section .note.GNU-stack, "", @progbits
