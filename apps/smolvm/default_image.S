/* The default image (BusyBox root with smol-init), and init alone, as the build made them. */
    .section .rodata
    .balign 4096
    .global smol_default_image
    .global smol_default_image_end
smol_default_image:
    .incbin SMOL_IMAGE
smol_default_image_end:
    .balign 4096
    .global smol_init_image
    .global smol_init_image_end
smol_init_image:
    .incbin SMOL_INIT_IMAGE
smol_init_image_end:
    .section .note.GNU-stack, "", @progbits
