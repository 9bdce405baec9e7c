# SHA-256 is libcrypto's, which uses the CPU's instructions for it; nothing else of it is linked for this.
target_link_libraries(smol_image_store PUBLIC /usr/lib/x86_64-linux-gnu/libcrypto.a pthread)
target_compile_options(smol_image_store PRIVATE -Oz)
