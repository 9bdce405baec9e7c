# As for src/api: small before fast, but for the loop over every byte of a file.
target_compile_options(smol_image_artifact PRIVATE -Oz)
set_source_files_properties(${dir}/chunker.cc PROPERTIES COMPILE_OPTIONS -O2)
