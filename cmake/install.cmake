# What `cmake --install` puts where, and how other projects find it: pkg-config corvid,
# find_package(Corvid) -> Corvid::corvid (shared), Corvid::corvid_static.

file(GLOB PUBLIC_HEADERS CONFIGURE_DEPENDS include/corvid*.h)
install(FILES ${PUBLIC_HEADERS} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
set_target_properties(corvid_shared PROPERTIES EXPORT_NAME corvid)
set_target_properties(corvid_static PROPERTIES EXPORT_NAME corvid_static)
install(TARGETS corvid_shared corvid_static EXPORT CorvidTargets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET corvid)
  install(TARGETS corvid RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

set(PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/Corvid)
install(EXPORT CorvidTargets NAMESPACE Corvid:: DESTINATION ${PACKAGE_DIR})
configure_package_config_file(cmake/CorvidConfig.cmake.in ${CMAKE_BINARY_DIR}/CorvidConfig.cmake
                              INSTALL_DESTINATION ${PACKAGE_DIR})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/CorvidConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/CorvidConfig.cmake ${CMAKE_BINARY_DIR}/CorvidConfigVersion.cmake
        DESTINATION ${PACKAGE_DIR})
configure_file(cmake/corvid.pc.in ${CMAKE_BINARY_DIR}/corvid.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/corvid.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

file(GLOB MAN_PAGES CONFIGURE_DEPENDS docs/man/*.1)
install(FILES ${MAN_PAGES} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/cli/completion/corvid.bash)
  install(FILES cli/completion/corvid.bash RENAME corvid
          DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
endif()
