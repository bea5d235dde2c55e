// The loops that NumPy cannot say well. Plain C interface, loaded with ctypes; every function has
// a NumPy twin that gives the same result.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "shared.h"
#include "vectors.h"

namespace {

struct Box {
  float low[3], high[3];
};

Box box_of(const float *xyz, const std::vector<int64_t> &index, int64_t begin, int64_t end) {
  Box box;
  for (int k = 0; k < 3; ++k) {
    box.low[k] = box.high[k] = xyz[3 * index[begin] + k];
    for (int64_t i = begin; i < end; ++i) {
      box.low[k] = std::min(box.low[k], xyz[3 * index[i] + k]);
      box.high[k] = std::max(box.high[k], xyz[3 * index[i] + k]);
    }
  }
  return box;
}

// Parts the points at the median of their box's longest side; returns its axis.
int halve(const float *xyz, std::vector<int64_t> &index, int64_t begin, int64_t middle,
          int64_t end, const Box &box) {
  int axis = 0;
  for (int k = 1; k < 3; ++k)
    if (box.high[k] - box.low[k] > box.high[axis] - box.low[axis]) axis = k;
  std::nth_element(
      index.begin() + begin, index.begin() + middle, index.begin() + end,
      [&](int64_t a, int64_t b) { return xyz[3 * a + axis] < xyz[3 * b + axis]; });
  return axis;
}

// Some neighbouring points: their box, and the one farthest from all samples so far.
struct Bucket {
  int64_t begin, end;
  Box box;
  float far;
  int64_t farthest;  // in the input's order; of equally far ones the first
};

struct Points {
  std::vector<float> xyz;      // by bucket
  std::vector<float> far;      // squared distance to the nearest sample
  std::vector<int64_t> index;  // in the input's order
};

void split(const float *xyz, std::vector<int64_t> &index, int64_t begin, int64_t end,
           std::vector<Bucket> &buckets) {
  const Box box = box_of(xyz, index, begin, end);
  constexpr int64_t kFew = 48;
  if (end - begin <= kFew) {
    buckets.push_back({begin, end, box, std::numeric_limits<float>::infinity(), 0});
    return;
  }
  const int64_t middle = (begin + end) / 2;
  halve(xyz, index, begin, middle, end, box);
  split(xyz, index, begin, middle, buckets);
  split(xyz, index, middle, end, buckets);
}

void update(Bucket &bucket, Points &points, const float *center) {
  bucket.far = -2;
  for (int64_t i = bucket.begin; i < bucket.end; ++i) {
    const float *p = points.xyz.data() + 3 * i;
    const float dx = p[0] - center[0], dy = p[1] - center[1], dz = p[2] - center[2];
    const float far = std::min(points.far[i], (dx * dx + dy * dy) + dz * dz);
    points.far[i] = far;
    if (far > bucket.far || (far == bucket.far && points.index[i] < bucket.farthest)) {
      bucket.far = far;
      bucket.farthest = points.index[i];
    }
  }
}

float gap(const Box &box, const float *center) {
  float square = 0;
  for (int k = 0; k < 3; ++k) {
    const float out =
        std::max(std::max(box.low[k] - center[k], center[k] - box.high[k]), 0.0f);
    square += out * out;
  }
  return square;
}

using Candidate = std::pair<double, int64_t>;  // squared distance, point

// A k-d tree with points in the leaves. A node's children follow it: the first at once.
class Tree {
 public:
  Tree(const float *xyz, int64_t n) : index_(n) {
    std::iota(index_.begin(), index_.end(), 0);
    grow(xyz, 0, n);
    for (int64_t i : index_) xyz_.insert(xyz_.end(), xyz + 3 * i, xyz + 3 * i + 3);
  }

  // `outside`: how far the node's cell lies from the query along each axis; `least`: its square.
  void search(size_t at, const float *query, double *outside, double least,
              std::vector<Candidate> &best) const {
    const Node &node = nodes_[at];
    if (!node.second) {
      for (int64_t i = node.begin; i < node.end; ++i) consider(i, query, best);
      return;
    }
    const double offset = double(query[node.axis]) - node.cut;
    search(offset < 0 ? at + 1 : node.second, query, outside, least, best);
    const double before = outside[node.axis];
    const double beyond = least - before * before + offset * offset;
    if (beyond * (1 - 1e-12) > best.back().first) return;
    outside[node.axis] = offset;
    search(offset < 0 ? node.second : at + 1, query, outside, beyond, best);
    outside[node.axis] = before;
  }

 private:
  struct Node {
    int64_t begin, end;
    int axis;
    float cut;
    size_t second;  // 0: a leaf
  };

  void grow(const float *xyz, int64_t begin, int64_t end) {
    const size_t at = nodes_.size();
    nodes_.push_back({begin, end, 0, 0, 0});
    constexpr int64_t kFew = 12;
    if (end - begin <= kFew) return;
    const int64_t middle = (begin + end) / 2;
    const int axis = halve(xyz, index_, begin, middle, end, box_of(xyz, index_, begin, end));
    nodes_[at].axis = axis;
    nodes_[at].cut = xyz[3 * index_[middle] + axis];
    grow(xyz, begin, middle);
    nodes_[at].second = nodes_.size();
    grow(xyz, middle, end);
  }

  void consider(int64_t i, const float *query, std::vector<Candidate> &best) const {
    const float *p = xyz_.data() + 3 * i;
    const double dx = double(p[0]) - query[0], dy = double(p[1]) - query[1],
                 dz = double(p[2]) - query[2];
    const Candidate candidate{dx * dx + dy * dy + dz * dz, index_[i]};
    if (!(candidate < best.back())) return;
    size_t place = best.size() - 1;
    for (; place > 0 && candidate < best[place - 1]; --place) best[place] = best[place - 1];
    best[place] = candidate;
  }

  std::vector<int64_t> index_;
  std::vector<float> xyz_;
  std::vector<Node> nodes_;
};

WIDE void along(const float *point, const float *center, const float *axes, const float *share,
                int64_t directions, float gamma, float *out) {
  float gx = point[0] - center[0], gy = point[1] - center[1], gz = point[2] - center[2];
  const float length = std::sqrt(gx * gx + gy * gy + gz * gz);
  const float scale = 1 / (length > 1e-9f ? length : 1e-9f);
  gx *= scale, gy *= scale, gz *= scale;
  const float *ax = axes, *ay = axes + directions, *az = axes + 2 * directions;
  float w = 0;
  for (int64_t a = 0; a < directions; ++a) {
    const float cosine = gx * ax[a] + gy * ay[a] + gz * az[a];
    w += std::fabs(cosine) > gamma ? share[a] : 0;
  }
  *out = w;
}

}  // namespace

extern "C" {

// xyz (n, 3); chosen (count). A new sample can only change points that are nearer to it than to
// all others; buckets whose box lies farther off are not looked at. Points within sqrt(1e-3) of
// the origin are never chosen.
void farthest_points(const float *xyz, int64_t n, int64_t count, int64_t *chosen) {
  Points points;
  points.index.resize(n);
  std::iota(points.index.begin(), points.index.end(), 0);
  std::vector<Bucket> buckets;
  split(xyz, points.index, 0, n, buckets);
  for (int64_t i : points.index) {
    const float *p = xyz + 3 * i;
    points.xyz.insert(points.xyz.end(), p, p + 3);
    const float square = (p[0] * p[0] + p[1] * p[1]) + p[2] * p[2];
    points.far.push_back(square > 1e-3f ? std::numeric_limits<float>::infinity() : -1);
  }
  chosen[0] = 0;
  for (int64_t k = 1; k < count; ++k) {
    const float *center = xyz + 3 * chosen[k - 1];
    const Bucket *best = nullptr;
    for (Bucket &bucket : buckets) {
      if (gap(bucket.box, center) < bucket.far) update(bucket, points, center);
      if (!best || bucket.far > best->far ||
          (bucket.far == best->far && bucket.farthest < best->farthest))
        best = &bucket;
    }
    chosen[k] = best->farthest;
  }
}

// The k nearest of points (n, 3) to every query (m, 3), nearest first, of equally near ones the
// first; k <= n. found (m, k).
void nearest(const float *xyz, int64_t n, const float *queries, int64_t m, int64_t k,
             int64_t *found) {
  const Tree tree(xyz, n);
  shared(m, 2000, [&](int64_t begin, int64_t end) {
    std::vector<Candidate> best(k);
    for (int64_t q = begin; q < end; ++q) {
      std::fill(best.begin(), best.end(), Candidate{std::numeric_limits<double>::infinity(), n});
      double outside[3] = {0, 0, 0};
      tree.search(0, queries + 3 * q, outside, 0, best);
      for (int64_t j = 0; j < k; ++j) found[q * k + j] = best[j].second;
    }
  });
}

// xyz (m, 3); centers (s, 3); axes (s, 3, a) unit; share (s, a); near (m, k); w (m, k).
void following(const float *xyz, const float *centers, const float *axes, const float *share,
               const int64_t *near, int64_t m, int64_t k, int64_t directions, float gamma,
               float *w) {
  shared(m * k, 2000, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t j = near[i];
      along(xyz + 3 * (i / k), centers + 3 * j, axes + 3 * directions * j,
            share + directions * j, directions, gamma, w + i);
    }
  });
}
}
