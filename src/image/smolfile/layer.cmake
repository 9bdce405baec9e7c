# toml++ is a header; its units are compiled for size.
target_compile_options(smol_image_smolfile PRIVATE -Oz)
