// A set of cluster numbers: which clusters of an image hold tables. Sorted, so that a range is
// looked up in a few steps; tables come and go rarely.
#pragma once

#include <algorithm>
#include <vector>

#include "base/bytes.h"

namespace smol::storage {

class ClusterSet {
 public:
  // In any order, then sort(); false: a cluster is in it twice.
  void append(u64 cluster) { clusters_.push_back(cluster); }
  bool sort() {
    std::ranges::sort(clusters_);
    return std::ranges::adjacent_find(clusters_) == clusters_.end();
  }
  void insert(u64 cluster) {
    clusters_.insert(std::ranges::lower_bound(clusters_, cluster), cluster);
  }
  void remove(u64 cluster) {
    const auto at = std::ranges::lower_bound(clusters_, cluster);
    if (at != clusters_.end() && *at == cluster) clusters_.erase(at);
  }
  bool meets(u64 first, u64 count) const {
    const auto at = std::ranges::lower_bound(clusters_, first);
    return at != clusters_.end() && *at - first < count;
  }

 private:
  std::vector<u64> clusters_;
};

}  // namespace smol::storage
