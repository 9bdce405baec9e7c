# toml++ is a header; its unit is compiled for size.
target_compile_options(smol_toml PRIVATE -Oz)
