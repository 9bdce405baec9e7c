/* zstd's library reads frames of its versions 0.5 to 0.7, too (2016 and before): 90 KB. What pack
 * create writes is never one of those, so these come instead and refuse. Argument lists are those
 * of zstd's legacy/zstd_v05.h ... zstd_v07.h, as far as they are looked at. */
#include <stddef.h>

static const size_t kError = (size_t)-1; /* ZSTD_error_GENERIC */

#define REFUSE(version)                                                                       \
  void* ZSTDv##version##_createDCtx(void) { return NULL; }                                    \
  size_t ZSTDv##version##_freeDCtx(void* context) { return (void)context, (size_t)0; }        \
  size_t ZSTDv##version##_decompress_usingDict(void) { return kError; }                       \
  size_t ZSTDv##version##_getFrameParams(void) { return kError; }                             \
  void ZSTDv##version##_findFrameSizeInfoLegacy(const void* from, size_t size, size_t* frame, \
                                                unsigned long long* bound) {                  \
    (void)from, (void)size;                                                                   \
    *frame = kError;                                                                          \
    *bound = (unsigned long long)-2; /* ZSTD_CONTENTSIZE_ERROR */                             \
  }                                                                                           \
  void* ZBUFFv##version##_createDCtx(void) { return NULL; }                                   \
  size_t ZBUFFv##version##_freeDCtx(void* context) { return (void)context, (size_t)0; }       \
  size_t ZBUFFv##version##_decompressInitDictionary(void) { return kError; }                  \
  size_t ZBUFFv##version##_decompressContinue(void) { return kError; }

REFUSE(05)
REFUSE(06)
REFUSE(07)
