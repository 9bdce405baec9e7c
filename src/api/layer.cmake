# Asked a few times a second at most: small is worth more than fast (the monitor is one static file).
target_compile_options(smol_api PRIVATE -Oz)
