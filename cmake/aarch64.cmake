# Debian's cross compiler for 64-bit Arm; programs run under qemu, with the libraries of Debian's own
# arm64 packages (libcmocka-dev:arm64 brings them).  Not those of the cross compiler: two versions of
# one C library in a process hang in the first pthread_create.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /)
set(ENV{PKG_CONFIG_LIBDIR} /usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig)
