# How everything is compiled.  Never -ffast-math: the empty state of RWKV-4 is minus infinity.
# Never -march=native: kernels are chosen when the program runs.

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_C_FLAGS_RELEASE "-O2 -g1 -DNDEBUG")
set(CMAKE_C_FLAGS_DEBUG "-O0 -g3")
set(CMAKE_C_FLAGS_CHECKED "-O1 -g -fno-omit-frame-pointer") # the sanitizers
set(CMAKE_C_FLAGS_COVERAGE "-O0 -g --coverage -fprofile-update=atomic")
set(CMAKE_EXE_LINKER_FLAGS_COVERAGE "--coverage")
set(CMAKE_SHARED_LINKER_FLAGS_COVERAGE "--coverage")
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Release, Debug, Checked or Coverage" FORCE)
endif()

function(corvid_common_flags target)
  # Contraction off: a*b+c rounds twice in every compiler, so results do not depend on it.
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
                         -Wdouble-promotion -Wmissing-prototypes -Wvla -ffp-contract=off)
  target_compile_definitions(${target} PRIVATE _GNU_SOURCE CORVID_VERSION="${PROJECT_VERSION}")
  if(CORVID_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(CORVID_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${CORVID_SANITIZE}
                           -fno-sanitize-recover=all)
    target_link_options(${target} PRIVATE -fsanitize=${CORVID_SANITIZE})
  endif()
endfunction()

# Drops the kernels of other architectures from the list of sources, and gives those that stay
# their instruction sets.
function(corvid_kernel_flags list)
  set(sources ${${list}})
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64)$")
    list(FILTER sources EXCLUDE REGEX "/arm_[^/]*\\.c$|_neon\\.c$")
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
    list(FILTER sources EXCLUDE REGEX "/x86_[^/]*\\.c$")
  else()
    list(FILTER sources EXCLUDE REGEX "/(arm|x86)_[^/]*\\.c$")
  endif()
  foreach(source ${sources})
    # Ops and the optimiser are loops over numbers, too, on the way back.
    if(source MATCHES "/src/ops/|/src/train/adamw" AND CMAKE_BUILD_TYPE STREQUAL Release)
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
                                  "-O3;-fno-math-errno;-fno-trapping-math")
    endif()
    if(NOT source MATCHES "/src/kernels/")
      continue()
    endif()
    set(flags -O3)
    if(source MATCHES "_avx2\\.c$")
      list(APPEND flags -mavx2 -mfma -mf16c)
    elseif(source MATCHES "_avx512\\.c$")
      list(APPEND flags -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c
           -mprefer-vector-width=512)
    elseif(source MATCHES "_bf16\\.c$")
      list(APPEND flags -mavx512bf16 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c
           -mprefer-vector-width=512)
    elseif(source MATCHES "_amx\\.c$")
      list(APPEND flags -mamx-tile -mamx-bf16 -mavx512bf16 -mavx512f -mavx512bw -mavx512dq
           -mavx512vl -mavx2 -mfma -mf16c -mprefer-vector-width=512)
    endif()
    # A checked build keeps its -O1: it is there to be read in a debugger.  The vector kernels are
    # left out of the sanitizers, which would take minutes over their unrolled tiles; tests/kernels
    # watches their reads and writes with guard pages, and ref.c stays in.
    if(NOT CMAKE_BUILD_TYPE STREQUAL Release)
      list(REMOVE_ITEM flags -O3)
    endif()
    if(source MATCHES "/(arm|x86)_[^/]*\\.c$" AND (CORVID_SANITIZE OR CORVID_FUZZ))
      list(APPEND flags -O2 -fno-sanitize=all)
    endif()
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${flags}")
  endforeach()
  set(${list} ${sources} PARENT_SCOPE)
endfunction()
