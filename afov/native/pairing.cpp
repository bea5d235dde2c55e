// Points to pixels, in float64 and in the order of operations of its NumPy twin in
// afov/pairing.py and afov/cameras.py, so that both give the same pairs.
#include <cmath>
#include <cstdint>
#include <vector>

#include "vectors.h"

namespace {

double along(const double *row, const double *p) {
  return p[0] * row[0] + p[1] * row[1] + p[2] * row[2] + row[3];
}

// From the plane z = 1 through the lens; D in OpenCV's order.
void bend(const double *D, double r2, double &x, double &y) {
  const double radial = (1 + r2 * (D[0] + r2 * (D[1] + r2 * D[4]))) /
                        (1 + r2 * (D[5] + r2 * (D[6] + r2 * D[7])));
  const double bent = x * radial + 2 * D[2] * x * y + D[3] * (r2 + 2 * x * x) + D[8] * r2 +
                      D[9] * r2 * r2;
  y = y * radial + D[2] * (r2 + 2 * y * y) + 2 * D[3] * x * y + D[10] * r2 + D[11] * r2 * r2;
  x = bent;
}

// Whether a point may fall on the image: ahead, and less than a pixel beside it (with a lens: inside
// its radius, nearly). No division and no branch, so several points at a time; what passes is asked
// again exactly.
WIDE void near_image(const double *xyz, int64_t n, const double *pose, const double *K, bool lens,
                     const double *limits, uint8_t *near) {
  const double left = lens ? -INFINITY : -1, right = lens ? INFINITY : limits[1];
  const double bottom = lens ? INFINITY : limits[2], radius = lens ? 1.001 * limits[3] : INFINITY;
  for (int64_t i = 0; i < n; ++i) {
    const double *p = xyz + 3 * i;
    const double x = along(pose, p), y = along(pose + 4, p), z = along(pose + 8, p);
    const double u = x * K[0] + y * K[1] + z * K[2], v = x * K[3] + y * K[4] + z * K[5];
    near[i] = (z > limits[0]) & (u > left * z) & (v > left * z) & (u < right * z) &
              (v < bottom * z) & (x * x + y * y <= radius * (z * z));
  }
}

}  // namespace

extern "C" {

// xyz (n, 3) in the LiDAR frame; pose: rows of (3, 4), camera from LiDAR; K: rows of (2, 3); D (12)
// or null for no lens; limits: least depth, width, height, and the squared radius on the plane
// z = 1 where the lens ends. point, row, col and depth have room for n pairs. Returns how many
// there are.
int64_t pair_points(const double *xyz, int64_t n, const double *pose, const double *K,
                    const double *D, const double *limits, int64_t *point, int64_t *row,
                    int64_t *col, double *depth) {
  const double width = limits[1], height = limits[2];
  std::vector<uint8_t> near(n);
  near_image(xyz, n, pose, K, D, limits, near.data());
  // No processor guesses which points are near, so this loop does not ask it to.
  int64_t few = 0, count = 0;
  for (int64_t i = 0; i < n; ++i) {
    point[few] = i;
    few += near[i];
  }
  for (int64_t j = 0; j < few; ++j) {
    const int64_t i = point[j];
    double x = along(pose, xyz + 3 * i), y = along(pose + 4, xyz + 3 * i);
    const double z = along(pose + 8, xyz + 3 * i);
    if (!std::isfinite(x) || !std::isfinite(y) || !std::isfinite(z)) continue;
    x /= z, y /= z;
    if (D) {
      const double r2 = x * x + y * y;
      if (r2 > limits[3]) continue;
      bend(D, r2, x, y);
    }
    const double u = x * K[0] + y * K[1] + K[2], v = x * K[3] + y * K[4] + K[5];
    if (!(u > 0 && u < width - 1 && v > 0 && v < height - 1)) continue;
    point[count] = i, depth[count] = z;
    col[count] = int64_t(std::rint(u)), row[count++] = int64_t(std::rint(v));
  }
  return count;
}
}
