# Decompressors for qcow2's compressed clusters, linked statically.
foreach(library z zstd)
  find_library(SMOL_LIB_${library} lib${library}.a REQUIRED)
  target_link_libraries(smol_storage PUBLIC ${SMOL_LIB_${library}})
endforeach()
