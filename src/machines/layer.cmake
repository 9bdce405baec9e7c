# SQLite as a static library; it loads nothing at run time, so no -ldl.
target_link_libraries(smol_machines PUBLIC /usr/lib/x86_64-linux-gnu/libsqlite3.a m pthread)
