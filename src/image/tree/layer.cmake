# Layers are gzip or zstd, archives of root file systems xz, too; digests are libsodium's.
foreach(library z zstd lzma sodium)
  find_library(SMOL_LIB_${library} lib${library}.a REQUIRED)
  target_link_libraries(smol_image_tree PUBLIC ${SMOL_LIB_${library}})
endforeach()
