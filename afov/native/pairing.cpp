// Points to pixels, in float64 and in the order of operations of its NumPy twin in
// afov/pairing.py and afov/cameras.py, so that both give the same pairs.
#include <cmath>
#include <cstdint>

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
  // Half of the points lie behind: no processor guesses which, so this loop does not ask it to.
  int64_t ahead = 0, count = 0;
  for (int64_t i = 0; i < n; ++i) {
    depth[ahead] = along(pose + 8, xyz + 3 * i);
    point[ahead] = i;
    ahead += depth[ahead] > limits[0];
  }
  for (int64_t j = 0; j < ahead; ++j) {
    const int64_t i = point[j];
    const double z = depth[j];
    double x = along(pose, xyz + 3 * i), y = along(pose + 4, xyz + 3 * i);
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
