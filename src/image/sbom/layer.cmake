# As for src/api: small before fast.
target_compile_options(smol_image_sbom PRIVATE -Oz)
# For rpm's database; as src/machines has it.
target_link_libraries(smol_image_sbom PUBLIC /usr/lib/x86_64-linux-gnu/libsqlite3.a m pthread)
