// The steps are mke2fs's: super block and groups, tables, the root with lost+found, reserved
// inodes, the place for growing while mounted, the journal. The file is a hole at first and so
// already zero: tables and journal are declared initialised and never written, which is why a large
// disk costs no more than a small one.
#include "image/ext4.h"

#include <ext2fs/ext2fs.h>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "base/fd.h"

namespace smol::image {
namespace {

constexpr u32 kBlockSize = 4096;
constexpr u64 kBytesForInode = 16 * kKiB;
constexpr u64 kLeastSize = 16 * kMiB;

struct Closer {
  void operator()(ext2_filsys fs) const { ext2fs_free(fs); }
};
using FileSystem = std::unique_ptr<struct_ext2_filsys, Closer>;

Result<> check(errcode_t code, std::string_view step, const std::string& path) {
  if (code == 0) return {};
  // Codes below 256 are errno; the library's own carry a table number in the high bits.
  if (code > 0 && code < 256)
    return std::unexpected(
        Error::from_errno(static_cast<int>(code), fmt::format("cannot {} in {}", step, path)));
  return fail("cannot {} in {}: {}", step, path, ::error_message(code));
}

ext2_super_block parameters(u64 bytes) {
  ext2_super_block super{};
  super.s_rev_level = EXT2_DYNAMIC_REV;
  super.s_log_block_size = 2;  // 1 KiB << 2
  super.s_log_cluster_size = 2;
  super.s_inode_size = 256;
  super.s_inodes_count = static_cast<u32>(std::min<u64>(bytes / kBytesForInode, 1u << 30));
  super.s_log_groups_per_flex = 4;
  super.s_feature_compat = EXT2_FEATURE_COMPAT_EXT_ATTR | EXT2_FEATURE_COMPAT_DIR_INDEX |
                           EXT2_FEATURE_COMPAT_RESIZE_INODE;
  super.s_feature_incompat = EXT2_FEATURE_INCOMPAT_FILETYPE | EXT3_FEATURE_INCOMPAT_EXTENTS |
                             EXT4_FEATURE_INCOMPAT_FLEX_BG;
  super.s_feature_ro_compat =
      EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER | EXT2_FEATURE_RO_COMPAT_LARGE_FILE |
      EXT4_FEATURE_RO_COMPAT_HUGE_FILE | EXT4_FEATURE_RO_COMPAT_DIR_NLINK |
      EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE | EXT4_FEATURE_RO_COMPAT_METADATA_CSUM;
  ext2fs_blocks_count_set(&super, bytes / kBlockSize);
  // Room in the descriptor table to grow a thousandfold while mounted, as far as one block's
  // pointers reach.
  super.s_reserved_gdt_blocks = 1023;
  return super;
}

Result<> set_identity(ext2_filsys fs, const std::string& label, const std::string& path) {
  u8 random[32];
  if (::getrandom(random, sizeof(random), 0) != sizeof(random))
    return fail_errno("cannot get random bytes");
  std::memcpy(fs->super->s_uuid, random, 16);
  fs->super->s_uuid[6] =
      static_cast<u8>((fs->super->s_uuid[6] & 0x0f) | 0x40);  // RFC 9562: version 4
  fs->super->s_uuid[8] = static_cast<u8>((fs->super->s_uuid[8] & 0x3f) | 0x80);
  std::memcpy(fs->super->s_hash_seed, random + 16, 16);
  fs->super->s_def_hash_version = EXT2_HASH_HALF_MD4;
  fs->super->s_max_mnt_count = -1;
  fs->super->s_checkinterval = 0;
  fs->super->s_min_extra_isize = fs->super->s_want_extra_isize =
      sizeof(ext2_inode_large) - EXT2_GOOD_OLD_INODE_SIZE;
  fs->super->s_default_mount_opts = EXT2_DEFM_XATTR_USER | EXT2_DEFM_ACL;
  fs->super->s_checksum_type = EXT2_CRC32C_CHKSUM;
  std::memcpy(fs->super->s_volume_name, label.data(),
              std::min(label.size(), sizeof(fs->super->s_volume_name)));
  ext2fs_init_csum_seed(fs);
  fs->umask = 077;
  return check(ext2fs_allocate_tables(fs), "place the tables", path);
}

void declare_zeroed(ext2_filsys fs) {
  for (dgrp_t group = 0; group < fs->group_desc_count; ++group) {
    ext2fs_bg_flags_set(fs, group, EXT2_BG_INODE_ZEROED);
    ext2fs_group_desc_csum_set(fs, group);
  }
}

Result<> fill(ext2_filsys fs, const std::string& path) {
  declare_zeroed(fs);
  TRY(check(ext2fs_mkdir(fs, EXT2_ROOT_INO, EXT2_ROOT_INO, nullptr), "make the root folder", path));
  ext2_inode root{};
  TRY(check(ext2fs_read_inode(fs, EXT2_ROOT_INO, &root), "read the root folder", path));
  root.i_mode = LINUX_S_IFDIR | 0755;
  TRY(check(ext2fs_write_inode(fs, EXT2_ROOT_INO, &root), "write the root folder", path));
  for (ext2_ino_t inode = EXT2_ROOT_INO + 1; inode < EXT2_FIRST_INODE(fs->super); ++inode)
    ext2fs_inode_alloc_stats2(fs, inode, +1, 0);
  ext2fs_inode_alloc_stats2(fs, EXT2_BAD_INO, +1, 0);
  fs->umask = 077;
  TRY(check(ext2fs_mkdir(fs, EXT2_ROOT_INO, 0, "lost+found"), "make lost+found", path));
  TRY(check(ext2fs_create_resize_inode(fs), "make the place for growing", path));
  const int blocks = ext2fs_default_journal_size(ext2fs_blocks_count(fs->super));
  if (blocks > 0)
    TRY(check(ext2fs_add_journal_inode(fs, static_cast<blk_t>(blocks),
                                       EXT2_MKJOURNAL_LAZYINIT | EXT2_MKJOURNAL_NO_MNT_CHECK),
              "make the journal", path));
  return {};
}

Result<> make(const std::string& path, u64 bytes, const std::string& label) {
  ext2_super_block super = parameters(bytes);
  ext2_filsys raw = nullptr;
  TRY(check(ext2fs_initialize(path.c_str(), EXT2_FLAG_EXCLUSIVE, &super, unix_io_manager, &raw),
            "start a file system", path));
  FileSystem fs(raw);
  TRY(set_identity(fs.get(), label, path));
  TRY(fill(fs.get(), path));
  raw = fs.release();
  return check(ext2fs_close_free(&raw), "write the file system", path);
}

}  // namespace

Result<> make_ext4(const std::string& path, u64 bytes, const std::string& label) {
  if (bytes < kLeastSize || bytes % kBlockSize != 0)
    return fail("{}: a disk of {} bytes cannot hold a file system", path, bytes);
  {
    TRY_ASSIGN(const base::UniqueFd file, base::open_file(path, O_RDWR | O_CREAT | O_EXCL, 0600));
    if (::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) {
      const auto failed = fail_errno("cannot make {} {} bytes long", path, bytes);
      ::unlink(path.c_str());
      return failed;
    }
  }
  auto made = make(path, bytes, label);
  if (made) {
    // A full disk may show only now.
    TRY_ASSIGN(const base::UniqueFd file, base::open_file(path, O_RDWR));
    if (::fdatasync(file.get()) != 0) made = fail_errno("cannot write {}", path);
  }
  if (!made) ::unlink(path.c_str());
  return made;
}

Result<> grow_disk(const std::string& path, u64 bytes) {
  TRY_ASSIGN(const base::UniqueFd file, base::open_file(path, O_RDWR));
  TRY_ASSIGN(const u64 now, base::file_size(file.get(), path));
  if (bytes < now) return fail("{} has {} GiB; it can grow but not shrink", path, now / kGiB);
  if (::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0)
    return fail_errno("cannot make {} {} bytes long", path, bytes);
  return {};
}

}  // namespace smol::image
