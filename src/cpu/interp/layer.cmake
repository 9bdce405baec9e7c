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

# The interpreter's speed (bench/cpu_loops): the guest's code is compiled into the program, so x86-64 hosts only.
if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64" AND NOT SMOL_SANITIZE)
  set(loops_dir ${PROJECT_SOURCE_DIR}/bench/cpu_loops)
  add_executable(cpu_loops EXCLUDE_FROM_ALL ${loops_dir}/main.cc ${loops_dir}/guest_loops.cc)
  target_include_directories(cpu_loops PRIVATE ${loops_dir})
  target_link_libraries(cpu_loops PRIVATE smol_cpu_interp)
  set_source_files_properties(${loops_dir}/guest_loops.cc PROPERTIES COMPILE_OPTIONS
    "-O2;-fno-vectorize;-fno-slp-vectorize;-fno-jump-tables;-fno-stack-protector;-fno-function-sections;-fno-unroll-loops;-fno-pic;-fcf-protection=none;-fno-builtin")
endif()
