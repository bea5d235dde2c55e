// Points to pixels, in float64 and in the order of operations of its NumPy twin in
// afov/pairing.py and afov/cameras.py, so that both give the same pairs.
#include <cmath>
#include <cstdint>

extern "C" {

// xyz (n, 3) in the LiDAR frame; pose: rows of (3, 4), camera from LiDAR; K: rows of (2, 3); D (12)
// in OpenCV's order; radius2: squared radius on the plane z = 1 where the lens ends. point, row, col
// and depth have room for n pairs. Returns how many there are.
int64_t pair_points(const double *xyz, int64_t n, const double *pose, const double *K,
                    const double *D, const double *limits, int64_t *point, int64_t *row,
                    int64_t *col, double *depth) {
  const double min_depth = limits[0], width = limits[1], height = limits[2], radius2 = limits[3];
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double *p = xyz + 3 * i;
    const auto along = [&](const double *r) { return p[0] * r[0] + p[1] * r[1] + p[2] * r[2] + r[3]; };
    const double z = along(pose + 8);
    if (!(z > min_depth)) continue;
    const double right = along(pose), down = along(pose + 4);
    if (!std::isfinite(right) || !std::isfinite(down) || !std::isfinite(z)) continue;
    const double x = right / z, y = down / z, r2 = x * x + y * y;
    if (r2 > radius2) continue;
    const double radial = (1 + r2 * (D[0] + r2 * (D[1] + r2 * D[4]))) /
                          (1 + r2 * (D[5] + r2 * (D[6] + r2 * D[7])));
    const double bent_x = x * radial + 2 * D[2] * x * y + D[3] * (r2 + 2 * x * x) + D[8] * r2 +
                          D[9] * r2 * r2;
    const double bent_y = y * radial + D[2] * (r2 + 2 * y * y) + 2 * D[3] * x * y + D[10] * r2 +
                          D[11] * r2 * r2;
    const double u = bent_x * K[0] + bent_y * K[1] + K[2];
    const double v = bent_x * K[3] + bent_y * K[4] + K[5];
    if (!(u > 0 && u < width - 1 && v > 0 && v < height - 1)) continue;
    point[count] = i, depth[count] = z;
    col[count] = int64_t(std::rint(u)), row[count++] = int64_t(std::rint(v));
  }
  return count;
}
}
