# Handlers want every optimisation, and no stack frame around their rare calls: what they call realigns the stack itself
# (SMOL_REALIGN, SMOL_PRESERVE_MOST in cpu/state/cpu.h and cpu/mmu/access.h).
set(interp_dir ${PROJECT_SOURCE_DIR}/src/cpu/interp)
file(GLOB interp_handlers CONFIGURE_DEPENDS ${interp_dir}/integer_*.cc)
list(FILTER interp_handlers EXCLUDE REGEX "_test\\.cc$")
set(interp_options -O3 -fomit-frame-pointer)
if(SMOL_SANITIZE)
  set(interp_options "")
elseif(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
  set_source_files_properties(${interp_handlers} ${interp_dir}/exits.cc ${interp_dir}/effective_address.cc
                              PROPERTIES COMPILE_OPTIONS "-mstack-alignment=8")
endif()
target_compile_options(smol_cpu_interp PRIVATE ${interp_options})
