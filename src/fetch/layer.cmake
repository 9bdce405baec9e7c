# TLS is OpenSSL's, names are resolved by c-ares: all of it static. As for src/http: small before fast.
target_link_libraries(smol_fetch PUBLIC /usr/lib/x86_64-linux-gnu/libssl.a /usr/lib/x86_64-linux-gnu/libcrypto.a
                      /usr/lib/x86_64-linux-gnu/libcares.a pthread)
target_compile_options(smol_fetch PRIVATE -Oz)
