# As for src/api: small before fast.
target_compile_options(smol_image_sbom PRIVATE -Oz)
