# SQLite as a static library; it loads nothing at run time, so no -ldl.
target_link_libraries(smol_machines PUBLIC /usr/lib/x86_64-linux-gnu/libsqlite3.a m pthread)
# Archives of trees: the same code as in the guest.
target_link_libraries(smol_machines PUBLIC smol_guest_tar)
