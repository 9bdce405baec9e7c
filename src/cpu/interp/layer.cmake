# Handlers want every optimisation, and no stack frame around their rare calls: what they call realigns the stack itself
# (SMOL_REALIGN, SMOL_PRESERVE_MOST in cpu/state/cpu.h and cpu/mmu/access.h). No jump tables either: hosts predict their indirect
# jump badly, and a handler needs its branch history for the guest's own.
set(interp_dir ${PROJECT_SOURCE_DIR}/src/cpu/interp)
file(GLOB interp_handlers CONFIGURE_DEPENDS ${interp_dir}/integer_*.cc)
list(FILTER interp_handlers EXCLUDE REGEX "_test\\.cc$")
# Nothing in it throws or lets an exception through: without tables for that, its handlers take 180 KB less of the monitor.
set(interp_options -O3 -fomit-frame-pointer -fno-exceptions -fno-asynchronous-unwind-tables)
if(SMOL_SANITIZE)
  # AddressSanitizer's frames and the handlers' calling convention do not go together.
  set(interp_options "")
  target_compile_definitions(smol_cpu_interp PUBLIC SMOL_PORTABLE_DISPATCH=1)
elseif(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
  set_source_files_properties(${interp_handlers} ${interp_dir}/exits.cc ${interp_dir}/effective_address.cc
                              PROPERTIES COMPILE_OPTIONS "-mstack-alignment=8;-fno-jump-tables")
endif()
target_compile_options(smol_cpu_interp PRIVATE ${interp_options})

# The interpreter's speed (bench/cpu_loops): the guest's code is compiled into the program, so x86-64 hosts only.
if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64" AND NOT SMOL_SANITIZE)
  set(loops_dir ${PROJECT_SOURCE_DIR}/bench/cpu_loops)
  add_executable(cpu_loops EXCLUDE_FROM_ALL ${loops_dir}/main.cc ${loops_dir}/guest_loops.cc
                 ${loops_dir}/guest_float_loops.cc)
  target_include_directories(cpu_loops PRIVATE ${loops_dir})
  target_link_libraries(cpu_loops PRIVATE smol_cpu_interp)
  set_source_files_properties(${loops_dir}/guest_loops.cc ${loops_dir}/guest_float_loops.cc PROPERTIES COMPILE_OPTIONS
    "-O2;-fno-vectorize;-fno-slp-vectorize;-fno-jump-tables;-fno-stack-protector;-fno-function-sections;-fno-unroll-loops;-fno-pic;-fcf-protection=none;-fno-builtin")
endif()

# The same sources without guaranteed tail calls, as other compilers get them: only its test links it.
if(SMOL_TESTS AND NOT SMOL_FUZZ)
  get_target_property(interp_sources smol_cpu_interp SOURCES)
  add_library(smol_cpu_interp_portable STATIC EXCLUDE_FROM_ALL ${interp_sources})
  target_compile_definitions(smol_cpu_interp_portable PUBLIC SMOL_PORTABLE_DISPATCH=1)
  target_include_directories(smol_cpu_interp_portable PUBLIC ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(smol_cpu_interp_portable PUBLIC smol_cpu_state smol_cpu_decoder smol_cpu_mmu)
  add_executable(smol_cpu_interp_portable_test ${interp_dir}/engine_test.cc ${interp_dir}/integer_test.cc
                 ${interp_dir}/system_test.cc ${interp_dir}/system_event_test.cc)
  target_link_libraries(smol_cpu_interp_portable_test PRIVATE smol_cpu_interp_portable smol_gtest)
  add_test(NAME smol_cpu_interp_portable_test COMMAND smol_cpu_interp_portable_test)
  set_tests_properties(smol_cpu_interp_portable_test PROPERTIES TIMEOUT 600 LABELS unit)
endif()
