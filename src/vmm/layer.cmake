# vmm.ping tells it.
target_compile_definitions(smol_vmm PRIVATE SMOL_VERSION="${PROJECT_VERSION}")
# What runs once, or for a request, is made small rather than fast.
set_source_files_properties(
  ${dir}/api_config.cc ${dir}/api_config_shown.cc ${dir}/api_thread.cc ${dir}/config.cc ${dir}/controller.cc
  ${dir}/controller_requests.cc ${dir}/event_monitor.cc ${dir}/net_options.cc ${dir}/options.cc ${dir}/stats.cc
  PROPERTIES COMPILE_OPTIONS -Oz)
