# The lookup tables are computed by the compiler from the rows.
set_source_files_properties(${dir}/table.cc PROPERTIES COMPILE_OPTIONS "$<$<CXX_COMPILER_ID:Clang>:-fconstexpr-steps=50000000>")
