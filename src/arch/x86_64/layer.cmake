# Decompressors for bzImage payloads, linked statically: the monitor is one static file.
foreach(library z lzma bz2 lz4 zstd)
  find_library(SMOL_LIB_${library} lib${library}.a REQUIRED)
  target_link_libraries(smol_arch_x86_64 PUBLIC ${SMOL_LIB_${library}})
endforeach()
