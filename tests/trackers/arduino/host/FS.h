/* The part of fs::FS and fs::File, as the cores of ESP32 and ESP8266 declare them, that the library uses. What is behind it a program
   says in `behind`: a handle is a number above 0. */
#ifndef FS_H
#define FS_H
#include <Arduino.h>

namespace fs {

struct Calls {
  int (*open)(const char *path, const char *mode);
  int (*read)(int file, uint8_t *bytes, uint32_t count);
  int (*write)(int file, const uint8_t *bytes, uint32_t count);
  int (*seek)(int file, uint32_t at);
  int (*size)(int file);
  int (*close)(int file);
  int (*exists)(const char *path);
  int (*remove)(const char *path);
};

class File : public Stream {
  const Calls *calls;
  int handle;

 public:
  File(const Calls *c, int h) : calls(c), handle(h) {}
  File(const File &) = delete; /* the real one counts its copies; the library makes none */
  File(File &&other) : calls(other.calls), handle(other.handle) { other.handle = 0; }
  File &operator=(File &&other) {
    close();
    calls = other.calls;
    handle = other.handle;
    other.handle = 0;
    return *this;
  }
  ~File() { close(); }
  operator bool() const { return handle > 0; }
  void close() {
    if (handle > 0) calls->close(handle);
    handle = 0;
  }
  using Print::write;
  size_t write(uint8_t c) { return write(&c, 1); }
  size_t write(const uint8_t *bytes, size_t count) { return handle > 0 ? (size_t)calls->write(handle, bytes, (uint32_t)count) : 0; }
  int available() { return 0; }
  int peek() { return -1; }
  int read() {
    uint8_t c;
    return read(&c, 1) == 1 ? c : -1;
  }
  size_t read(uint8_t *bytes, size_t count) { return handle > 0 ? (size_t)calls->read(handle, bytes, (uint32_t)count) : 0; }
  bool seek(uint32_t at) { return handle > 0 && calls->seek(handle, at); }
  size_t size() const { return handle > 0 ? (size_t)calls->size(handle) : 0; }
};

class FS {
 public:
  const Calls *behind;
  explicit FS(const Calls *calls = 0) : behind(calls) {}
  File open(const char *path, const char *mode) { return File(behind, behind->open(path, mode)); }
  bool exists(const char *path) { return behind->exists(path); }
  bool remove(const char *path) { return behind->remove(path); }
};

}  // namespace fs
#endif
