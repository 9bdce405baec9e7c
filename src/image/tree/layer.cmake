# Layers are gzip or zstd; digests are libsodium's.
foreach(library z zstd sodium)
  find_library(SMOL_LIB_${library} lib${library}.a REQUIRED)
  target_link_libraries(smol_image_tree PUBLIC ${SMOL_LIB_${library}})
endforeach()
