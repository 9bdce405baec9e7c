# Decompressors for qcow2's compressed clusters and io_uring, linked statically.
foreach(library z zstd uring)
  find_library(SMOL_LIB_${library} lib${library}.a REQUIRED)
  target_link_libraries(smol_storage PUBLIC ${SMOL_LIB_${library}})
endforeach()
