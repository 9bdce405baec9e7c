# libext2fs makes the file systems of machines' disks (ext4.cc).
target_link_libraries(smol_image PUBLIC /usr/lib/x86_64-linux-gnu/libext2fs.a /usr/lib/x86_64-linux-gnu/libcom_err.a pthread)
