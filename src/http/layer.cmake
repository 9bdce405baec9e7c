# As for src/api: small before fast.
target_compile_options(smol_http PRIVATE -Oz)
