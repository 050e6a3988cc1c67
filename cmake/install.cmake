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

# The models that come with the command, where cli/shipped.c looks for them.
file(GLOB MODELS CONFIGURE_DEPENDS models/*.gguf models/README.md)
if(TARGET corvid AND MODELS)
  install(FILES ${MODELS} DESTINATION ${CMAKE_INSTALL_DATADIR}/corvid/models)
endif()

set(PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/Corvid)
install(EXPORT CorvidTargets NAMESPACE Corvid:: DESTINATION ${PACKAGE_DIR})
configure_package_config_file(cmake/CorvidConfig.cmake.in ${CMAKE_BINARY_DIR}/CorvidConfig.cmake
                              INSTALL_DESTINATION ${PACKAGE_DIR})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/CorvidConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/CorvidConfig.cmake ${CMAKE_BINARY_DIR}/CorvidConfigVersion.cmake
        DESTINATION ${PACKAGE_DIR})
# Relative to the file itself, so that the prefix may be chosen when installing.
file(RELATIVE_PATH PC_TO_PREFIX /p/${CMAKE_INSTALL_LIBDIR}/pkgconfig /p)
configure_file(cmake/corvid.pc.in ${CMAKE_BINARY_DIR}/corvid.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/corvid.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# The command writes its own manual page and completions, so they are made by the built command.
if(TARGET corvid AND NOT CMAKE_CROSSCOMPILING)
  set(GENERATED ${CMAKE_BINARY_DIR}/share)
  add_custom_command(OUTPUT ${GENERATED}/corvid.1 ${GENERATED}/corvid.bash ${GENERATED}/_corvid
                            ${GENERATED}/corvid.fish
    COMMAND ${CMAKE_COMMAND} -E make_directory ${GENERATED}
    COMMAND corvid man > ${GENERATED}/corvid.1
    COMMAND corvid completions bash > ${GENERATED}/corvid.bash
    COMMAND corvid completions zsh > ${GENERATED}/_corvid
    COMMAND corvid completions fish > ${GENERATED}/corvid.fish
    DEPENDS corvid VERBATIM COMMENT "Writing the manual page and the completions")
  add_custom_target(manual ALL DEPENDS ${GENERATED}/corvid.1)
  install(FILES ${GENERATED}/corvid.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  install(FILES ${GENERATED}/corvid.bash RENAME corvid
          DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
  install(FILES ${GENERATED}/_corvid DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
  install(FILES ${GENERATED}/corvid.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
endif()
