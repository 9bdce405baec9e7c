# The filters are BPF programs that a small tool makes out of tools/seccomp_filters/policy.h with libseccomp.
add_executable(seccomp_filters ${PROJECT_SOURCE_DIR}/tools/seccomp_filters/main.cc)
target_link_libraries(seccomp_filters PRIVATE seccomp)
set(filters ${CMAKE_BINARY_DIR}/generated/sandbox/filters.inc)
add_custom_command(OUTPUT ${filters} COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/generated/sandbox
                   COMMAND seccomp_filters ${filters} DEPENDS seccomp_filters COMMENT "Making seccomp filters")
target_sources(smol_sandbox PRIVATE ${filters})
target_include_directories(smol_sandbox PRIVATE ${CMAKE_BINARY_DIR}/generated)
if(SMOL_SANITIZE)
  # The sanitizers' own system calls are not ours to list.
  target_compile_definitions(smol_sandbox PUBLIC SMOL_NO_SECCOMP)
endif()
# Asked a few times a run: small before fast (a capsule carries it).
target_compile_options(smol_sandbox PRIVATE -Oz)
