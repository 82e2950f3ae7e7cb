/* The name that an example uses of LittleFS. */
#include <FS.h>
struct LittleFSFS : fs::FS {
  bool begin();
};
extern LittleFSFS LittleFS;
